-- A row that was deleted and made anew may be an older version than before, as what a report registers is, and still is what
-- the project has: stations are told, and take it, however new what they have is.
-- A running older version takes of such a row the newer version, as before.

-- What changed after that place, in order: {changes: [{table, deleted, ids, times, rows}], xid, seq,
-- more, gap, project}. Of what is deleted the keys, with the rows of those that were made anew since; of all else the rows as
-- they are now, but not those that are so by that station. About row_limit rows, or 4 MiB. gap: changes between that place and the first one here are lost, or it is a
-- place in another database.
create or replace function public.sync_changes(after_xid text, after_seq bigint, row_limit integer, station uuid) returns jsonb
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
  own uuid := sync.own_station();
  snapshot pg_snapshot := pg_current_snapshot();
  place xid8 := after_xid::xid8;
  place_seq bigint := after_seq;
  change record;
  change_ids jsonb;
  change_times jsonb;
  current_rows jsonb;
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
    -- Also what the station has made anew itself: it may be told so by nothing else.
    execute format(
      'select jsonb_agg(key.id), jsonb_agg(key.time),
         jsonb_agg(to_jsonb(t) || jsonb_build_object(''station_id'', coalesce(t.station_id, $4) %1$s))
           filter (where t.%2$I is not null)
       from unnest($1, $2) as key (id, time) left join public.%3$I t on t.%2$I = key.id %4$s
       where $5 or (t.%2$I is not null and %5$s)',
      case when change.is_edited then ', ''changed_by'', coalesce(t.changed_by, $4)' end,
      change.key_columns[1],
      change.table_name,
      'and key.time = t.' || quote_ident(change.key_columns[2]),
      case
        -- Each needs its own row, too, and has not made that itself.
        when change.table_name = 'stations' then 'true'
        when change.is_edited then 'coalesce(t.changed_by, $4) <> $3'
        else 'coalesce(t.station_id, $4) <> $3'
      end
    ) using change.ids, change.times, station, own, change.is_deleted into change_ids, change_times, current_rows;
    if change_ids is not null then
      changes := changes || jsonb_build_object(
        'table', change.table_name, 'deleted', change.is_deleted,
        'ids', case when change.is_deleted then change_ids end,
        'times', case when change.is_deleted and change.times is not null then change_times end,
        'rows', coalesce(current_rows, '[]')
      );
      bytes_read := bytes_read + coalesce(length(current_rows::text), 0);
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

-- A statement that sets changed_at brings a version that was made elsewhere. The newer one wins, wherever both meet; the
-- other is kept where it is another station's. The same version again changes nothing. Where pugmark.made_anew is on, it
-- is of a row that took the place of this one.
create or replace function sync.apply_version() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  own uuid;
  old_by uuid;
  new_by uuid;
begin
  if current_setting('pugmark.made_anew', true) = 'on' then
    return new;
  end if;
  if old.changed_by is null or new.changed_by is null then
    own := sync.own_station();
  end if;
  old_by := coalesce(old.changed_by, own);
  new_by := coalesce(new.changed_by, own);
  if (new.changed_at, new_by) = (old.changed_at, old_by) then
    return null;
  end if;
  if (new.changed_at, new_by) > (old.changed_at, old_by) then
    if new_by <> old_by then
      perform sync.keep_overruled(tg_table_name, (to_jsonb(old) ->> tg_argv[0])::uuid, to_jsonb(old), old.changed_at, old_by);
    end if;
    return new;
  end if;
  if new_by <> old_by then
    perform sync.keep_overruled(tg_table_name, (to_jsonb(new) ->> tg_argv[0])::uuid, to_jsonb(new), new.changed_at, new_by);
  end if;
  return null;
end
$$;

create or replace function sync.note_edit() returns trigger language plpgsql set search_path = '' as $$
begin
  if current_setting('pugmark.made_anew', true) = 'on' then
    return new;
  end if;
  -- Later than the version it was made from, whatever this clock says.
  new.changed_at := greatest(clock_timestamp(), old.changed_at + interval '1 microsecond');
  new.changed_by := null;
  return new;
end
$$;
