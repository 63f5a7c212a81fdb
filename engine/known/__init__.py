"""What was measured on this machine before, in place of what is modelled."""

from .fit import Fit, Line, fit_of, probe_estimate
from .measured import Known, known_here, known_of, point_estimate

__all__ = ["Fit", "Known", "Line", "fit_of", "known_here", "known_of", "point_estimate", "probe_estimate"]
