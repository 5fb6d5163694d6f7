"""The handlers of the endpoints, one file for each resource. What they have in common is in `services`."""
