-- The output of a block is a source for models behind it.
select
    customer,
    min(ordered_at) as first_order,
    sum(quantity * unit_price) as total
from {{ source('streamline', 'load_orders') }}
group by customer
