"""What outlives the pods of what ranks print: where it waits, how much is kept, and where."""
