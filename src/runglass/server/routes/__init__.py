"""The handlers of the endpoints, one file for each resource.

Knows no paths and no roles: those are in the table `server/endpoints.py`.
"""
