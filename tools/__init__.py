"""What is run beside the app: the folder of a Space, the audit of what is installed."""
