"""paretune's plug-ins for Hydra."""
