import pandas as pd

from streamline.decorators import data_loader


@data_loader
def load_orders(*args, **kwargs):
    return pd.DataFrame({"id": [1, 2, 3], "total": [9.5, 20.0, 3.25]})
