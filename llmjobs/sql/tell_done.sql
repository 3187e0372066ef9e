-- Called by: incidents.Teller.tell, after operators were told.
-- Parameters: ids of one message; is_opening: what they were told of.
-- Marks them as told. An end that came meanwhile is told of at once.
-- Locks: the incidents. Index: its primary key.
update llmjobs_incident
set opening_told_at = case when %(is_opening)s then coalesce(opening_told_at, statement_timestamp()) else opening_told_at end,
    closing_told_at = case when %(is_opening)s then closing_told_at else statement_timestamp() end,
    tell_again_at = statement_timestamp(),
    tell_failures = 0
where id = any (%(ids)s)
