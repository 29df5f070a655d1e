"""The worker process of duckserve: runs one MLflow model and answers over an inherited socket.

Nothing here needs a package beyond the standard library; numpy, pandas and mlflow are used where the model's
environment has them.
"""
