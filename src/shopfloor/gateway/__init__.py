"""The gateway: a process of its own that alone holds the keys, counts every model call and keeps the budgets."""
