"""Many runs under the same conditions: the search space, ask and tell, replicates, and going on where it stopped."""
