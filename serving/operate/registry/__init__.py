"""The commands `headway registry`: what each does to a registry (`actions.py`, `mlflow.py`), prints, and is called."""
