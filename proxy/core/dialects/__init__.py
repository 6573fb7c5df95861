"""The wire forms that callers and arms speak: composed and parsed, never sent."""
