"""From scripted demonstrations to a fine-tuned, evaluated robot policy, in one YAML file."""

__version__ = "0.1.0"
