"""What every service shares: settings, logging, authentication, problems, health, metrics, lifecycle."""
