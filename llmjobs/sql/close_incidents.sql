-- Called by: incidents.Teller.tell, before it looks for what is to be told.
-- Closes breakers' incidents that no call can close: of a provider that has no models any more, or of a model that is gone or has
-- moved to another provider.
-- Locks: the incidents, SKIP LOCKED. Index: incident_open_once, which holds the open ones alone.
update llmjobs_incident
set closed_at = statement_timestamp()
where id = any (array(
    select i.id
    from llmjobs_incident as i
    where i.closed_at is null and i.kind = 'breaker'
        and not exists (
            select from llmjobs_model as m where m.provider_id = i.provider_id and m.id = coalesce(i.pool_id, m.id)
        )
    for no key update skip locked
))
