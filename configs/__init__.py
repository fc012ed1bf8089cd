"""Every option of the project (schema.py) and the YAML files that set some of them."""
