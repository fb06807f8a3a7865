"""Reports over past windows of the lake."""
