"""Pipelines: what a YAML file may say (`spec`) and what carries it out (`runner`)."""
