"""How near the estimate comes to published measurements, beside other estimators on the same rows."""
