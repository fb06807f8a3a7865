"""Statistics and the decision rule: values in, values out. Pure."""
