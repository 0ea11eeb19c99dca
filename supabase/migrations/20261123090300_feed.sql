-- What stations call in a project, as its service role: to announce themselves, to read what others changed since they
-- last asked, and to compare.
-- A running older version sees new functions.

-- The station is known to the others, and this database records all changes from now on: it is a feed.
create function public.sync_announce(station uuid, name text) returns void
language plpgsql set search_path = '' as $$
begin
  perform sync.become_feed();
  insert into public.stations as s (id, name, station_id, changed_by) values (station, $2, station, station)
  on conflict (id) do update set name = excluded.name, changed_at = clock_timestamp(), changed_by = station
    where s.name <> excluded.name;
end
$$;

create function sync.become_feed() returns void
language plpgsql security definer set search_path = '' as $$
declare
  trimmed xid8;
begin
  update sync.state set is_feed = true where not is_feed;
  update sync.mirrored_tables set is_recorded = true where not is_recorded;
  -- The order in which a feed is read: seq alone would skip the transaction that commits late. An outbox does without,
  -- since it would cost every fix that comes alone.
  create index if not exists changes_feed on sync.changes (xid, seq);
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

-- A station keeps them in the statement that stores the fixes; in a project nobody else does.
create function sync.keep_last_positions() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into public.last_positions (device_id, time)
  select device_id, max(time) from touched
  where outlier is null and time <= now() + interval '10 minutes'
  group by device_id order by device_id
  on conflict (device_id) do update set time = excluded.time where excluded.time > last_positions.time;
  return null;
end
$$;

-- Where the feed ends now, {xid, seq}: what changes later comes after it. And whose it is, project: where that is the
-- station's own id, the two are one database.
create function public.sync_head() returns jsonb language sql set search_path = ''
return jsonb_build_object(
  'xid', pg_snapshot_xmin(pg_current_snapshot())::text, 'seq', 0, 'project', sync.own_station()
);

-- What changed after that place, in order, but not by that station: {changes: [{table, deleted, ids, times, rows}], xid, seq,
-- more, gap, project}. Of what is deleted the keys, of all else the rows as they are now. About row_limit rows, or 4 MiB.
-- gap: changes between that place and the first one here are lost, or it is a place in another database.
create function public.sync_changes(after_xid text, after_seq bigint, row_limit integer, station uuid) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
  own uuid := sync.own_station();
  snapshot pg_snapshot := pg_current_snapshot();
  place xid8 := after_xid::xid8;
  place_seq bigint := after_seq;
  change record;
  current_rows jsonb;
  gone jsonb;
  changes jsonb[] := '{}';
  keys_read bigint := 0;
  bytes_read bigint := 0;
  more boolean := false;
begin
  for change in
    select c.xid, c.seq, c.is_deleted, c.ids, c.times, m.table_name, m.key_columns, m.is_edited
    from sync.changes c join sync.mirrored_tables m using (table_name)
    -- A transaction that is still open may yet add changes before those of later ones.
    where (c.xid, c.seq) > (place, place_seq) and c.xid < pg_snapshot_xmin(snapshot)
    order by c.xid, c.seq limit row_limit + 1
  loop
    more := keys_read >= row_limit or bytes_read >= 4194304;
    exit when more;
    if change.is_deleted then
      -- Not those that were made anew since: a station may be told so by nothing else, where it did that itself.
      execute format(
        'select jsonb_build_object(
           ''table'', $3, ''deleted'', true, ''ids'', jsonb_agg(key.id), ''times'', %s, ''rows'', ''[]''::jsonb
         )
         from unnest($1, $2) as key (id, time)
         where not exists (select from public.%I t where t.%I = key.id %s)
         having count(*) > 0',
        case when change.times is null then 'null' else 'jsonb_agg(key.time)' end,
        change.table_name, change.key_columns[1], 'and key.time = t.' || quote_ident(change.key_columns[2])
      ) using change.ids, change.times, change.table_name into gone;
      if gone is not null then
        changes := changes || gone;
      end if;
    else
      execute format(
        'select jsonb_agg(to_jsonb(t) || jsonb_build_object(''station_id'', coalesce(t.station_id, $4) %s))
         from unnest($1, $2) as key (id, time) join public.%I t on t.%I = key.id %s where %s',
        case when change.is_edited then ', ''changed_by'', coalesce(t.changed_by, $4)' end,
        change.table_name, change.key_columns[1], 'and key.time = t.' || quote_ident(change.key_columns[2]),
        case
          -- Each needs its own row, too, and has not made that itself.
          when change.table_name = 'stations' then 'true'
          when change.is_edited then 'coalesce(t.changed_by, $4) <> $3'
          else 'coalesce(t.station_id, $4) <> $3'
        end
      ) using change.ids, change.times, station, own into current_rows;
      if current_rows is not null then
        changes := changes || jsonb_build_object(
          'table', change.table_name, 'deleted', false, 'ids', null, 'times', null, 'rows', current_rows
        );
        bytes_read := bytes_read + length(current_rows::text);
      end if;
    end if;
    keys_read := keys_read + cardinality(change.ids);
    place := change.xid;
    place_seq := change.seq;
  end loop;
  if not more and place < pg_snapshot_xmin(snapshot) then
    place := pg_snapshot_xmin(snapshot);
    place_seq := 0;
  end if;
  return jsonb_build_object(
    'changes', to_jsonb(changes), 'xid', place::text, 'seq', place_seq, 'more', more, 'project', own,
    'gap', after_xid::xid8 > pg_snapshot_xmax(snapshot)
      or coalesce(after_xid::xid8 <= (select feed_trimmed_xid from sync.state), false)
  );
end
$$;

-- Count and checksum of a table; of the rows that a station made, where one is given. Reads all of it, for which a project
-- would give the service role eight seconds.
create function public.sync_checksum(table_name text, station uuid default null) returns jsonb
language sql set search_path = '' set statement_timeout = '10min'
return (select jsonb_build_object('row_count', row_count, 'checksum', checksum)
  from sync.checksum(table_name, sync.own_station(), station));

revoke execute on function sync.become_feed(), sync.keep_last_positions() from public;
revoke execute on function public.sync_announce(uuid, text), public.sync_head(),
  public.sync_changes(text, bigint, integer, uuid), public.sync_checksum(text, uuid) from public, anon, authenticated;
grant execute on function sync.become_feed() to service_role;
grant execute on function public.sync_announce(uuid, text), public.sync_head(),
  public.sync_changes(text, bigint, integer, uuid), public.sync_checksum(text, uuid) to service_role;
