"""Language models: requests, answers, prices and the budget that they are paid from. Knows no steps."""
