"""Load tests of any server of the Open Inference Protocol: scenarios, budgets, reports (docs/load-tests.md)."""
