"""The posterior of settings' true scores, and what follows from it: studies and reports use the same figures."""
