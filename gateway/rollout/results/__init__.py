"""What an A/B test or a canary has shown so far, read from the prediction log; loaded by the command line alone."""
