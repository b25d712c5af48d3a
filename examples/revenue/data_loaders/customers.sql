select id, name, lower(email) as email
from customers
where not closed
