-- df_1 is the output of the first upstream block. It is there under its own name, load_orders, as well.
select
    customer,
    count(*) as orders,
    round(sum(quantity * unit_price), 2) as total
from {{ df_1 }}
group by customer
order by total desc
