"""Pictures: registrations, curves, features."""
