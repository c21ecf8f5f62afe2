"""How long an engine takes: a roofline of its GPU and model, corrected by what was measured."""
