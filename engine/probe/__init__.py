"""The probe tier: a few real steps on the real devices, and what they teach the estimate."""
