"""Settings, and the addresses and providers that they name. Knows nothing of who reads them."""
