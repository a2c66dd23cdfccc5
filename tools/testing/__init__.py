"""The tiers of the tests: what belongs to which, what each may take, and the nightly shards."""
