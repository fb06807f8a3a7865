"""Logged requests run again, away from traffic: through another version, or through the same one."""
