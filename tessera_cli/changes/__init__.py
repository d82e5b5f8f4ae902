"""What has changed on the ground between two windows, beyond what dates and years change everywhere."""
