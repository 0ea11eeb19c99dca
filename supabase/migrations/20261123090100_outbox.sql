-- What the mirror needs on both of its sides: the outbox of a station, which in a project is the feed of changes, and the
-- versions of rows that several stations may edit. A table joins by one line in its migration: select sync.mirror(…).
-- A running older version sees a new schema that it does not use.

create schema sync;
grant usage on schema sync to pugmark_app, service_role;

create table sync.mirrored_tables (
  -- In the schema public.
  table_name text primary key,
  -- Of its primary key: a uuid, or a uuid and a time.
  key_columns text[] not null,
  -- Parents before those that refer to them.
  rank integer not null,
  -- Rows change, and have changed_at and changed_by; those of other tables are only added and deleted.
  is_edited boolean not null,
  -- Whether changes are written to sync.changes. A table that is not recorded has no trigger for it.
  is_recorded boolean not null default false
);

-- Written in the transaction of the change itself: a row for each statement and thousand rows that it touched.
create table sync.changes (
  seq bigint generated always as identity primary key,
  xid xid8 not null default pg_current_xact_id(),
  table_name text not null,
  is_deleted boolean not null,
  -- Keys alone: who carries a change reads the row as it is then.
  ids uuid[] not null,
  -- The second part of each key; null where keys have one.
  times timestamptz[],
  changed_at timestamptz not null default now()
);

-- Rows that the other side refuses, or that cannot be taken from it, with the reason.
create table sync.parked_rows (
  id bigint generated always as identity primary key,
  direction text not null check (direction in ('push', 'pull', 'inbox')),
  table_name text not null,
  row_id uuid not null,
  row_time timestamptz,
  is_deleted boolean not null default false,
  -- What was pulled, since it is not here.
  row jsonb,
  code text,
  reason text not null,
  attempts integer not null default 1,
  parked_at timestamptz not null default now(),
  unique nulls not distinct (direction, table_name, row_id, row_time)
);

-- Of two edits the one that did not win.
create table sync.overruled_rows (
  id bigint generated always as identity primary key,
  table_name text not null,
  row_id uuid not null,
  row jsonb not null,
  changed_at timestamptz not null,
  changed_by uuid,
  kept_at timestamptz not null default now(),
  unique nulls not distinct (table_name, row_id, changed_at, changed_by)
);

-- Exactly one row.
create table sync.state (
  only_row boolean primary key default true check (only_row),
  -- Made when first asked for, so that copies of an unused database do not share it. See sync.own_station().
  station_id uuid,
  station_name text,
  -- The station_id of the project that all below is about.
  project_id uuid,
  pull_xid xid8,
  pull_seq bigint,
  pulled_at timestamptz,
  pushed_at timestamptz,
  push_error text,
  pull_error text,
  error_since timestamptz,
  history_sent_at timestamptz,
  -- True in a project: its changes are what stations read, and recording is not to be switched off.
  is_feed boolean not null default false,
  -- Changes up to this one are no longer in the feed.
  feed_trimmed_xid xid8
);
insert into sync.state default values;

alter table sync.mirrored_tables enable row level security;
alter table sync.changes enable row level security;
alter table sync.parked_rows enable row level security;
alter table sync.overruled_rows enable row level security;
alter table sync.state enable row level security;

create policy app on sync.mirrored_tables to pugmark_app using (true) with check (true);
create policy app on sync.changes to pugmark_app using (true) with check (true);
create policy app on sync.parked_rows to pugmark_app using (true) with check (true);
create policy app on sync.overruled_rows to pugmark_app using (true) with check (true);
create policy app on sync.state to pugmark_app using (true) with check (true);
create policy service on sync.mirrored_tables for select to service_role using (true);
create policy service on sync.changes for select to service_role using (true);
create policy service on sync.state for select to service_role using (true);

grant select, update (is_recorded) on sync.mirrored_tables to pugmark_app;
grant select, delete on sync.changes to pugmark_app;
grant select, insert, update, delete on sync.parked_rows to pugmark_app;
grant select, delete on sync.overruled_rows to pugmark_app;
grant select, update on sync.state to pugmark_app;
grant select on sync.mirrored_tables, sync.changes, sync.state to service_role;

-- The id of this station; in a project, of the project, which is the station of what is edited there.
create function sync.own_station() returns uuid
language plpgsql security definer set search_path = '' as $$
declare
  own uuid := (select station_id from sync.state);
begin
  if own is null then
    update sync.state set station_id = coalesce(station_id, gen_random_uuid()) returning station_id into own;
  end if;
  return own;
end
$$;

-- Makes a table of the schema public part of the mirror: adds the columns that name stations and versions, lets the mirror
-- read and write it in a project, and makes what records its changes, which sync.mirrored_tables.is_recorded switches on.
create function sync.mirror(mirrored regclass, is_edited boolean, rank integer) returns void
language plpgsql set search_path = '' as $mirror$
declare
  name text := (select relname from pg_catalog.pg_class where oid = mirrored);
  keys text[];
  types regtype[];
begin
  select array_agg(a.attname::text order by k.place), array_agg(a.atttypid::regtype order by k.place)
  into keys, types
  from pg_catalog.pg_index i
  cross join unnest(i.indkey::smallint[]) with ordinality as k (number, place)
  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
  where i.indrelid = mirrored and i.indisprimary;
  if types is null or types not in (array['uuid'::regtype], array['uuid'::regtype, 'timestamptz'::regtype]) then
    raise exception 'the primary key of % is not a uuid, or a uuid and a time', mirrored;
  end if;

  -- Null: made, or changed, here.
  execute format('alter table %s add column if not exists station_id uuid', mirrored);
  if is_edited then
    execute format(
      'alter table %s add column if not exists changed_at timestamptz not null default now(),
         add column if not exists changed_by uuid',
      mirrored
    );
    -- In this order, which is that of their names.
    execute format(
      'create trigger sync_apply before update of changed_at on %s
         for each row execute function sync.apply_version(%L)',
      mirrored, keys[1]
    );
    execute format(
      'create trigger sync_edit before update on %s for each row
         when (new.changed_at = old.changed_at and new.changed_by is not distinct from old.changed_by)
         execute function sync.note_edit()',
      mirrored
    );
  end if;

  execute format('revoke all on %s from anon, authenticated, service_role', mirrored);
  execute format('grant select, insert, update, delete on %s to service_role', mirrored);
  execute format('create policy service on %s to service_role using (true) with check (true)', mirrored);

  -- One for each table: its statements are then planned once a connection, and not each time.
  execute format(
    $function$
      create function sync.%4$I() returns trigger language plpgsql security definer set search_path = '' as $body$
      declare
        ids uuid[];
        times timestamptz[];
      begin
        -- Almost every statement, and ingest's above all, is done with this one.
        insert into sync.changes (table_name, is_deleted, ids, times)
        select %1$L, tg_op = 'DELETE', array_agg(%2$I), %3$s from touched having count(*) between 1 and 1000;
        if found then
          return null;
        end if;
        select array_agg(%2$I), %3$s into ids, times from touched;
        for i in 1 .. coalesce(cardinality(ids), 0) by 1000 loop
          insert into sync.changes (table_name, is_deleted, ids, times)
          values (%1$L, tg_op = 'DELETE', ids[i : i + 999], times[i : i + 999]);
        end loop;
        return null;
      end
      $body$
    $function$,
    name, keys[1], coalesce('array_agg(' || quote_ident(keys[2]) || ')', 'null'), 'record_' || name
  );
  insert into sync.mirrored_tables (table_name, key_columns, rank, is_edited) values (name, keys, rank, is_edited);
end
$mirror$;

-- Recording is switched by making and dropping triggers, not by asking each time or by disabling them: Postgres copies
-- the rows of a statement for any trigger that could see them.
create function sync.switch_recording() returns trigger
-- Shorter than deadlock_timeout: who switches gives up before anybody who writes has to.
language plpgsql security definer set search_path = '' set lock_timeout = '500ms' as $$
declare
  event text;
begin
  new.is_recorded := new.is_recorded or (select is_feed from sync.state);
  if new.is_recorded = old.is_recorded then
    return new;
  end if;
  foreach event in array array['insert', 'update', 'delete'] loop
    if new.is_recorded then
      -- Rows that a station takes from its project are not to be sent back there.
      execute format(
        'create or replace trigger %I after %s on public.%I referencing %s table as touched for each statement
           when (current_setting(''pugmark.applying'', true) is distinct from ''on'') execute function sync.%I()',
        'sync_' || event, event, new.table_name, case event when 'delete' then 'old' else 'new' end,
        'record_' || new.table_name
      );
    else
      execute format('drop trigger if exists %I on public.%I', 'sync_' || event, new.table_name);
    end if;
  end loop;
  return new;
end
$$;
create trigger switch_recording before update of is_recorded on sync.mirrored_tables
  for each row execute function sync.switch_recording();

-- A statement that sets changed_at brings a version that was made elsewhere. The newer one wins, wherever both meet; the
-- other is kept where it is another station's. The same version again changes nothing.
create function sync.apply_version() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  own uuid;
  old_by uuid;
  new_by uuid;
begin
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

create function sync.keep_overruled(table_name text, row_id uuid, loser jsonb, changed_at timestamptz, changed_by uuid)
returns void language sql set search_path = '' as $$
  insert into sync.overruled_rows (table_name, row_id, row, changed_at, changed_by)
  values ($1, $2, $3, $4, $5)
  on conflict do nothing
$$;

create function sync.note_edit() returns trigger language plpgsql set search_path = '' as $$
begin
  -- Later than the version it was made from, whatever this clock says.
  new.changed_at := greatest(clock_timestamp(), old.changed_at + interval '1 microsecond');
  new.changed_by := null;
  return new;
end
$$;

-- The same for the same rows on both sides of the mirror, in whatever order they lie there: how many, and the sum of their
-- digests. A row of no station is one of own_station. Where made_by is given, of its rows alone.
create function sync.checksum(
  table_name text, own_station uuid, made_by uuid default null, out row_count bigint, out checksum text
)
language plpgsql stable
-- What the text of a value depends on.
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set extra_float_digits = 1 as $$
declare
  -- By name: on the other side they may have been added in another order.
  content text := (
    select string_agg(
      case when a.attname in ('station_id', 'changed_by') then format('coalesce(t.%I, $1)', a.attname)
        else format('t.%I', a.attname) end,
      ', ' order by a.attname
    )
    from pg_catalog.pg_attribute a
    where a.attrelid = format('public.%I', $1)::regclass and a.attnum > 0 and not a.attisdropped
  );
begin
  if not exists (select from sync.mirrored_tables m where m.table_name = $1) then
    raise exception 'no mirrored table %', $1 using errcode = 'undefined_table';
  end if;
  execute format(
    'select count(*), coalesce(sum((''x'' || left(md5(row(%s)::text), 16))::bit(64)::bigint), 0)::text
     from public.%I t where $2 is null or coalesce(t.station_id, $1) = $2',
    content, $1
  ) using own_station, made_by into row_count, checksum;
end
$$;

revoke execute on all functions in schema sync from public;
grant execute on function sync.own_station(), sync.checksum(text, uuid, uuid) to pugmark_app, service_role;
