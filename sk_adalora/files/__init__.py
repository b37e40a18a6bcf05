"""What a fitted estimator keeps, and the folders that hold it."""
