-- Called by: catalog.pool_for, once a submit.
-- Parameters: name: what clients call it.
-- Returns: no row, or the model. Its columns stand in the order of its fields, as Model.from_db wants them.
-- Locks: nothing. Index: the unique one of llmjobs_model.name.
-- Why: Django takes 1 ms to compile this and to build its objects, Postgres 0.05 ms to answer it.
select
    id as "model.id", name as "model.name", provider_id as "model.provider_id", upstream_name as "model.upstream_name",
    rpm as "model.rpm", tpm as "model.tpm", max_running as "model.max_running", "window" as "model.window",
    token_policy as "model.token_policy", input_usd_per_mtok as "model.input_usd_per_mtok",
    output_usd_per_mtok as "model.output_usd_per_mtok", context_window as "model.context_window",
    fallback_id as "model.fallback_id", is_paused as "model.is_paused", made_for_id as "model.made_for_id",
    shard_id as "model.shard_id", created_at as "model.created_at"
from llmjobs_model
where name = %(name)s
