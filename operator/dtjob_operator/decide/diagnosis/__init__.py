"""Why a job's workers do not come up, in a user's words."""
