"""Many runs under the same conditions: the search space, ask and tell, replicates, and how a study is resumed."""
