from pathlib import Path

import pandas as pd

from streamline.decorators import data_exporter


@data_exporter
def write_report(totals: pd.DataFrame, *args, **kwargs) -> None:
    Path("output").mkdir(exist_ok=True)
    totals.to_csv("output/report.csv", index=False)
    print(f"{len(totals)} customers, as of {kwargs['ds']}")
