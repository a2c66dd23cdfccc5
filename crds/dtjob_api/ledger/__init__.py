"""PrivacyLedger: what a job may spend and has spent, and the rules that no writer breaks."""
