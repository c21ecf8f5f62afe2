"""The Helm chart's generated files: its values, their schema, and what its templates must know of a spec."""
