import pandas as pd

from streamline.decorators import test, transformer


@transformer
def revenue(customers: pd.DataFrame, payments: dict[str, pd.DataFrame], *args, **kwargs):
    charges, refunds = payments["charges"], payments["refunds"]
    charges = charges[charges["status"] == "succeeded"]
    refunded = refunds.groupby("charge_id")["amount"].sum()
    charges = charges.assign(net=charges["amount"] - charges["id"].map(refunded).fillna(0))
    totals = charges.groupby("customer_id").agg(payments=("id", "count"), revenue=("net", "sum"))
    return (
        customers.merge(totals, left_on="id", right_index=True, how="left")
        .fillna({"payments": 0, "revenue": 0.0})
        .astype({"payments": "int64"})
        .rename(columns={"id": "customer_id"})
    )


@test
def test_customers_are_unique(customers, *args):
    assert customers["customer_id"].is_unique, "a customer has several rows"
