"""Codes and scales by error feedback: the inputs that layers see, their Hessians, the solver."""
