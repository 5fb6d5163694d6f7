"""Language models: requests, answers, prices, and the budget that pays. Knows no attempts and no events."""
