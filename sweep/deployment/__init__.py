"""From a finished run to something that others load: found, rebuilt, scored again, written with its card."""
