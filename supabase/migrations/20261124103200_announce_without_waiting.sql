-- "create index if not exists" locks the table before it sees that there is nothing to do: each station that announced itself
-- waited for all who wrote to the project, and two at once for each other.
-- A running older version asks as before.

create or replace function sync.become_feed() returns void
language plpgsql security definer set search_path = '' as $$
declare
  trimmed xid8;
begin
  -- The first has the row of the state, and others wait for that until all below is made.
  update sync.state set is_feed = true where not is_feed;
  update sync.mirrored_tables set is_recorded = true where not is_recorded;
  if to_regclass('sync.changes_feed') is null then
    -- The order in which a feed is read: seq alone would skip the transaction that commits late. An outbox does without,
    -- since it would cost every fix that comes alone.
    create index changes_feed on sync.changes (xid, seq);
  end if;
  if not exists (
    select from pg_catalog.pg_trigger where tgrelid = 'public.positions'::regclass and tgname = 'sync_last'
  ) then
    create trigger sync_last after insert on public.positions referencing new table as touched
      for each statement execute function sync.keep_last_positions();
  end if;
  -- A station that was away for longer takes everything anew.
  with gone as (
    delete from sync.changes where changed_at < now() - interval '30 days' returning xid
  )
  select xid into trimmed from gone order by xid desc limit 1;
  update sync.state set feed_trimmed_xid = trimmed where trimmed is not null;
end
$$;
