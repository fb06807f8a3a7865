"""The demo repository: real models, trained on the spot from data that ships inside packages."""
