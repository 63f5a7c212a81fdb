"""How near the estimate comes to published measurements, beside other estimators on the same rows.

It reads rows of measurements, says what each published script did as a workload, and asks the tiers. It fits
nothing: a number that would make one source come out better and is no fact of that source has no place here.
"""
