"""What each kind of training costs and which trainer runs it: one file per stage."""
